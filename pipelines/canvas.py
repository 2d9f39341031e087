"""What an annotated video shows: a picture with the face's box, beside it the circumplex with a trail, below it the
words and the traces of the targets. What stands still is drawn once, in a page of traces for every SPAN seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from affuse.features.parts import TextFeatures, VisualFeatures
from affuse.features.timeline import nearest_row
from affuse.fuse.reports.figures import COLOURS
from affuse.fuse.scoring.estimate import REACH
from affuse.fuse.scoring.predict import Prediction
from affuse.pipelines.subtitles import cues, signed

ROOM = 640, 480  # pixels that the picture is fitted into, up or down
LEAST = 340  # pixels of height, which the circumplex and the numbers below it take
SIDE = 240  # pixels of width beside the picture
CIRCLE = 200  # pixels, the side of the circumplex
ROW, TRACE, LEFT = 30, 72, 64  # pixels: height of the words, of a trace, and width of its name
SPAN = 30.0  # s of the traces that are seen at once
TRAIL = 2.0  # s
FINE = 2  # times as large as shown, to be drawn smoothly
BOX, INK, GREY, PALE, BAND = "#f2c14e", "#202020", "#808080", "#d0d0d0", 0.75


class Canvas:
    """Draws one prediction over pictures of a size (width, height); `size` is that of what it draws, both even."""

    def __init__(self, prediction: Prediction, visual: VisualFeatures, text: TextFeatures, shown: tuple[int, int]):
        self.prediction, self.visual, self.text = prediction, visual, text
        scale = min(ROOM[0] / shown[0], ROOM[1] / shown[1])
        self.picture = max(2, round(shown[0] * scale)), max(2, round(shown[1] * scale))
        self.top = max(LEAST, self.picture[1])  # pixels above the words
        width = self.picture[0] + SIDE
        height = self.top + ROW + TRACE * len(prediction.targets) + ROW
        self.size = width + width % 2, height + height % 2
        self.span = min(SPAN, max(1.0, prediction.facts()["seconds"]))  # of a short video, the whole
        self.cues = [np.array(words) for words in cues(text)]
        self.circle = self._circle() if {"valence", "arousal"} <= {*prediction.targets} else None
        self._page: tuple[int, Image.Image] | None = None

    def draw(self, time: float, pixels: np.ndarray, size: tuple[int, int]) -> Image.Image:
        """The canvas at a time in seconds: with the picture (H, W, 3) uint8, which is `size` wide and high unscaled."""
        row = int(nearest_row(self.prediction.time, np.array(time)))
        canvas = self.page(int(time / self.span)).copy()
        canvas.paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, (self.top - self.picture[1]) // 2))
        pen = ImageDraw.Draw(canvas)
        self._face(pen, time, size)
        self._numbers(canvas, pen, time, row)
        self._words(canvas, pen, time)
        self._cursor(pen, time, row)
        return canvas

    # ---- what changes with every picture

    def _face(self, pen: ImageDraw.ImageDraw, time: float, size: tuple[int, int]) -> None:
        if not len(self.visual.time):
            return
        row, above = int(nearest_row(self.visual.time, np.array(time))), (self.top - self.picture[1]) // 2
        if self.visual.valid[row]:
            wide, high = self.picture[0] / size[0], self.picture[1] / size[1]
            left, top, right, bottom = self.visual.box[row] * (wide, high, wide, high) + (0, above, 0, above)
            pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=BOX, width=3)
        else:
            pen.rectangle((8, above + 8, 84, above + 30), fill=INK)
            pen.text((46, above + 19), "no face", "white", font(14), "mm")

    def _numbers(self, canvas: Image.Image, pen: ImageDraw.ImageDraw, time: float, row: int) -> None:
        left, down = self.picture[0] + (SIDE - CIRCLE) // 2, 24
        if self.circle is not None:
            canvas.paste(self._trail(time, row), (left, down))
        down += CIRCLE + 28
        for i, target in enumerate(self.prediction.targets):
            known = self.prediction.valid[row]
            value = signed(self.prediction.values[row, i])
            pen.text((left, down), target, colour_of(target, i), font(16), "lm")
            pen.text((left + CIRCLE, down), value, colour_of(target, i) if known else GREY, font(18), "rm")
            down += 26
        nothing = "" if self.prediction.valid[row] else "nothing to go by"
        pen.text((left, down), nothing, GREY, font(13), "lm")
        pen.text((left + CIRCLE, down), f"{int(time) // 60}:{time % 60:04.1f}", GREY, font(13), "rm")

    def _trail(self, time: float, row: int) -> Image.Image:
        """The circumplex with where the last TRAIL seconds went."""
        circle, first = self.circle.copy(), int(np.searchsorted(self.prediction.time, time - TRAIL))
        pen, points = ImageDraw.Draw(circle), self._points[first : row + 1]
        for i in range(1, len(points)):
            pen.line((*points[i - 1], *points[i]), mixed(INK, i / len(points)), 2 * FINE)
        x, y = self._points[row]
        ink = BOX if self.prediction.valid[row] else GREY
        pen.ellipse((x - 7 * FINE, y - 7 * FINE, x + 7 * FINE, y + 7 * FINE), ink, INK, FINE)
        return circle.reduce(FINE)

    def _words(self, canvas: Image.Image, pen: ImageDraw.ImageDraw, time: float) -> None:
        """The words said together, the one that is spoken now in ink; those of a line too long move along."""
        now = [words for words in self.cues if self.text.start[words[0]] <= time <= self.text.end[words].max()]
        if not now:
            return
        said = [f"{word} " for word in self.text.word[now[-1]]]
        edges = np.append(0, np.cumsum([pen.textlength(word, font(16)) for word in said]))
        spoken = int(np.searchsorted(self.text.start[now[-1]], time, side="right")) - 1
        left, width = (self.size[0] - edges[-1]) / 2, self.size[0]
        if left < 0:
            left = min(0.0, max(width - edges[-1], width / 2 - edges[spoken]))
        for i, word in enumerate(said):
            pen.text((left + edges[i], self.top + ROW / 2), word, INK if i == spoken else GREY, font(16), "lm")

    def _cursor(self, pen: ImageDraw.ImageDraw, time: float, row: int) -> None:
        x = LEFT + (time % self.span) / self.span * self._wide
        for i in range(len(self.prediction.targets)):
            top = self.top + ROW + i * TRACE
            pen.line((x, top, x, top + TRACE), INK, 1)
            y = top + _height(self.prediction.values[row, i])
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), colour_of(self.prediction.targets[i], i), "white")

    # ---- what is drawn once

    @property
    def _wide(self) -> int:
        """Pixels of a trace."""
        return self.size[0] - LEFT - 12

    def page(self, number: int) -> Image.Image:
        """All that stands still while the traces show the seconds from number · span on."""
        if self._page is None or self._page[0] != number:
            fine = Image.new("RGB", (self.size[0] * FINE, self.size[1] * FINE), "white")
            pen = ImageDraw.Draw(fine)
            for i in range(len(self.prediction.targets)):
                self._trace(pen, number, i)
            self._page = number, self._labelled(fine.reduce(FINE), number)
        return self._page[1]

    def _trace(self, pen: ImageDraw.ImageDraw, number: int, i: int) -> None:
        """A target over the seconds of a page, its band, and shades where there was no face, or nothing to go by."""
        made, top = self.prediction, self.top + ROW + i * TRACE
        first, last = np.searchsorted(made.time, [number * self.span, (number + 1) * self.span])
        where = slice(max(0, first - 1), last + 1)
        x = LEFT + (made.time[where] / self.span - number) * self._wide
        ink = colour_of(made.targets[i], i)
        edges = np.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]])
        face = made.present.get("visual", made.valid)[where]
        for shaded, shade in ((made.valid[where] & ~face, "#f1f1f1"), (~made.valid[where], "#dadada")):
            for j in np.flatnonzero(shaded):
                _rectangle(pen, edges[j], top + 2, edges[j + 1], top + TRACE - 2, shade)
        _rectangle(pen, LEFT, top + TRACE / 2 - 0.5, LEFT + self._wide, top + TRACE / 2, PALE)
        if made.deviation is not None:
            reach = REACH * made.deviation[where, i]
            low, high = (top + _height(made.values[where, i] + side * reach) for side in (-1, 1))
            outline = np.column_stack([np.append(x, x[::-1]), np.append(high, low[::-1])]) * FINE
            if len(x) > 1:
                pen.polygon([*map(tuple, outline)], mixed(ink, 1 - BAND))
        line = np.column_stack([x, top + _height(made.values[where, i])]) * FINE
        pen.line([*map(tuple, line)], ink, 2 * FINE, "curve")
        for begin, end in ((0, LEFT), (LEFT + self._wide, self.size[0])):  # what reaches out of the page
            _rectangle(pen, begin, top, end, top + TRACE, "white")

    def _labelled(self, page: Image.Image, number: int) -> Image.Image:
        pen, bottom = ImageDraw.Draw(page), self.top + ROW + TRACE * len(self.prediction.targets)
        for i, target in enumerate(self.prediction.targets):
            top = self.top + ROW + i * TRACE
            pen.text((LEFT - 6, top + TRACE / 2), target, colour_of(target, i), font(12), "rm")
            for value, name in ((1, "1"), (-1, "−1")):
                pen.text((LEFT - 6, top + _height(value)), name, GREY, font(10), "rm")
        step = next(step for step in (0.2, 0.5, 1, 2, 5) if self.span / step <= 8 or step == 5)
        for i in range(int(self.span / step) + 1):
            x = LEFT + i * step / self.span * self._wide
            pen.line((x, bottom, x, bottom + 4), GREY)
            pen.text((x, bottom + 13), f"{number * self.span + i * step:g}", GREY, font(11), "mm")
        pen.text((LEFT - 6, bottom + 13), "s", GREY, font(11), "rm")
        return page

    def _circle(self) -> Image.Image:
        """The plane of valence, to the right, and arousal, upwards."""
        side = CIRCLE * FINE
        circle = Image.new("RGB", (side, side), "white")
        pen, middle, edge = ImageDraw.Draw(circle), side / 2, FINE
        pen.ellipse((edge, edge, side - edge, side - edge), "#f7f7f7", PALE, FINE)
        pen.line((edge, middle, side - edge, middle), PALE, FINE)
        pen.line((middle, edge, middle, side - edge), PALE, FINE)
        pen.text((side - 4 * FINE, middle + 2 * FINE), "valence", COLOURS["valence"], font(11 * FINE), "ra")
        pen.text((middle + 4 * FINE, 4 * FINE), "arousal", COLOURS["arousal"], font(11 * FINE), "la")
        valence, arousal = (
            self.prediction.values[:, self.prediction.targets.index(name)] for name in ("valence", "arousal")
        )
        reach = side / 2 - 8 * FINE
        self._points = np.column_stack([middle + reach * valence, middle - reach * arousal])
        return circle


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's sans, which has most alphabets."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def colour_of(target: str, i: int) -> str:
    return COLOURS.get(target, (INK, "#5b8c5a", "#8e6c8a")[i % 3])


@cache
def mixed(colour: str, share: float) -> tuple[int, ...]:
    """A colour on white, of which it has this share."""
    return tuple(round(255 + share * (part - 255)) for part in ImageColor.getrgb(colour))


def _height(value: np.ndarray | float) -> np.ndarray | float:
    """Pixels below a trace's top at which values in [−1, 1] stand."""
    return 6 + (1 - np.clip(value, -1, 1)) / 2 * (TRACE - 12)


def _rectangle(pen: ImageDraw.ImageDraw, left, top, right, bottom, colour: str) -> None:
    if right > left:
        pen.rectangle((left * FINE, top * FINE, right * FINE - 1, bottom * FINE - 1), colour)
