cd /tmp/w/m6e; export PATH=/tmp/w/venv/bin:$PATH PYTHONPATH=/tmp/w/m6e
