"""lm-eval's own command line, with our model in it: ``python -m depthsched.evaluate run --model depthsched``.

lm-eval finds models only in its own registry, not through entry points.
"""

from .register import register


def main() -> None:
    register()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
