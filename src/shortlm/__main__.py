"""`python -m shortlm` is the console script."""

from shortlm.cli import app

if __name__ == "__main__":
    app(prog_name="shortlm")
