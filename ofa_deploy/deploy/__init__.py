"""The promise: search, measure the finalists on the device, refit, choose, export, verify, report."""
