"""The command line with a decoder that hangs: of a video called `hangs`, the second chunk of frames never comes."""

import time

from affuse.extract import sight


def hanging(path, *given, decode=sight.read_frames, **options):
    for number, frames in enumerate(decode(path, *given, **options)):
        while number and path.stem == "hangs":
            time.sleep(3600)
        yield frames


sight.read_frames = hanging

if __name__ == "__main__":
    from affuse.commands import main

    main()
