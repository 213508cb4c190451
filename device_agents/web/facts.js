// What the browser tells of the device.

/** Facts that do not change while a chunk is measured. */
export async function deviceFacts() {
  const agent = navigator.userAgentData;
  const more = await agent?.getHighEntropyValues(["architecture", "model", "platformVersion"]).catch(() => ({}));
  const facts = {
    agent: "browser",
    cores: navigator.hardwareConcurrency,
    memory_gb_at_least: navigator.deviceMemory,
    platform: [agent?.platform ?? navigator.platform, more?.platformVersion].filter(Boolean).join(" "),
    machine: more?.architecture,
    model: more?.model,
    mobile: agent?.mobile,
    browser: agent?.brands.map(({ brand, version }) => `${brand} ${version}`).join(", "),
    user_agent: navigator.userAgent,
    screen: `${screen.width}×${screen.height} × ${devicePixelRatio}`,
    cross_origin_isolated: crossOriginIsolated,
    webgpu: "gpu" in navigator,
  };
  return known(facts);
}

/** What changes from minute to minute. */
export async function deviceState() {
  const battery = await navigator.getBattery?.().catch(() => undefined);
  return known({
    battery_pct: battery && Math.round(100 * battery.level),
    charging: battery?.charging,
    visible: document.visibilityState === "visible",
  });
}

function known(facts) {
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined && value !== ""));
}
