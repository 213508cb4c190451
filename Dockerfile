# The server and the command line, for a CPU:   docker build -t ofa-deploy .
# An agent with ONNX Runtime:                   docker build -t ofa-agent --target agent .
# CI runs these steps in bare environments and starts what they install (.ci/docker_steps.py).

FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
# pip's usual index brings torch with gigabytes of CUDA; name PyTorch's index of CPU builds with --build-arg TORCH_INDEX=…
ARG TORCH_INDEX=
RUN python -m venv /opt/ofa
RUN /opt/ofa/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".[postgres]"
RUN /opt/ofa/bin/ofa-deploy agent pack -o /opt/ofa-agent.pyz

FROM python:3.12-slim AS agent
RUN python -m venv /opt/agent
RUN /opt/agent/bin/pip install --no-cache-dir "onnxruntime>=1.20"
RUN useradd --create-home --uid 10001 ofa
COPY --from=build /opt/ofa-agent.pyz /opt/ofa-agent.pyz
USER 10001
VOLUME /home/ofa/.ofa-agent
# OFA_CODE and --server the first time; afterwards the volume knows them
ENTRYPOINT ["/opt/agent/bin/python", "/opt/ofa-agent.pyz"]

# the last stage is what `docker build` makes by default
FROM python:3.12-slim AS server
RUN useradd --create-home --uid 10001 ofa
COPY --from=build /opt/ofa /opt/ofa
ENV PATH=/opt/ofa/bin:$PATH OFA_WORKSPACE=/home/ofa/workspace
USER 10001
WORKDIR /home/ofa
RUN mkdir -p /home/ofa/workspace
VOLUME /home/ofa/workspace
EXPOSE 8800
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8800/healthz', timeout=4)"]
ENTRYPOINT ["ofa-deploy"]
# without TLS: put a proxy that has a certificate in front, or give --tls-cert and --tls-key
CMD ["serve", "--host", "0.0.0.0", "--insecure"]
