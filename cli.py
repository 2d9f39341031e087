"""The command line from a checkout: `python cli.py …` is `affuse …`, installed or not."""

from pathlib import Path

import affuse

affuse.__path__.append(str(Path(__file__).parent))  # where extract/, features/, fuse/ and pipelines/ lie

from affuse.__main__ import main  # noqa: E402

if __name__ == "__main__":
    main()
