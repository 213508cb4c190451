"""The JSON documents of bundles, audits and pages as typed records."""
