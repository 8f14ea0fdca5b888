"""``python -m think2seg``."""

from think2seg.cli import main

if __name__ == "__main__":
    main()
