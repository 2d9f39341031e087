"""The command line with a decoder that hangs: of a video called `hangs`, the 34th frame never comes."""

import time

from affuse.extract import media, nvdec, sight


def hanging(path, *given, decode=media.read_pictures):
    for number, picture in enumerate(decode(path, *given)):
        while number == 33 and path.stem == "hangs":
            time.sleep(3600)
        yield picture


media.read_pictures = nvdec.read_pictures = sight.read_pictures = hanging

if __name__ == "__main__":
    from affuse.commands import main

    main()
