"""`python -m ofa_deploy` is the `ofa-deploy` command."""

from ofa_deploy.cli import main

if __name__ == "__main__":
    main()
