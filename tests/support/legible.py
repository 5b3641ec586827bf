"""Whether a figure can be read: its texts are inside the page, apart from each other, and large enough."""

from matplotlib.backends.backend_agg import FigureCanvasAgg

SMALLEST = 6  # points


def assert_legible(page, ax, ticks=2):
    """Ticks of both axes and notes of the panel; an axis has at least `ticks` ticks in its range."""
    canvas = FigureCanvasAgg(page)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        every = zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        shown = [label for label, at in every if low <= at <= high and label.get_text()]
        assert len(shown) >= ticks, f"an axis needs at least {ticks} ticks"
        _inside_and_apart(shown, page.bbox, renderer)
    _inside_and_apart(ax.texts, page.bbox, renderer)


def _inside_and_apart(texts, whole, renderer):
    boxes = [text.get_window_extent(renderer) for text in texts]
    for i, box in enumerate(boxes):
        assert whole.x0 - 1 <= box.x0 <= box.x1 <= whole.x1 + 1, f"{texts[i].get_text()!r} leaves the page sideways"
        assert whole.y0 - 1 <= box.y0 <= box.y1 <= whole.y1 + 1, f"{texts[i].get_text()!r} leaves the page"
        for j, other in enumerate(boxes[i + 1 :], i + 1):
            assert not box.overlaps(other), f"{texts[i].get_text()!r} lies on {texts[j].get_text()!r}"
    assert all(text.get_fontsize() >= SMALLEST for text in texts)
