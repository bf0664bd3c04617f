"""Panels of curves: what is drawn, what the legend names, which panels say what the axis is."""

from matplotlib.figure import Figure

from harness.reporting.figures import Curve, paint_panels

RED, BLUE = {"color": "red", "marker": "o"}, {"color": "blue", "linestyle": "--"}
POINTS = [(20.0, 0.1), (40.0, 0.3)]


def canvas() -> Figure:
    return Figure(layout="constrained")


def test_a_curve_is_drawn_in_its_style_with_its_band() -> None:
    [axes] = paint_panels(canvas(), [("", [Curve(POINTS, BLUE, band=[(0.0, 0.2), (0.2, 0.4)])])], y_label="miou")
    [line], [band] = axes.lines, axes.collections
    assert (line.get_color(), line.get_linestyle()) == ("blue", "--")
    assert line.get_xydata().tolist() == [[20, 0.1], [40, 0.3]]
    assert band.get_datalim(axes.transData).extents.tolist() == [20, 0.0, 40, 0.4]
    assert (axes.get_xlim()[0], axes.get_xlabel(), axes.get_ylabel()) == (0, "optimizer step", "miou")


def test_the_legend_names_each_label_once_and_no_curve_without_points_or_label() -> None:
    figure = canvas()
    curves = [Curve(POINTS, RED, "red"), Curve(POINTS, BLUE), Curve([], BLUE, "nothing")]
    paint_panels(figure, [("a", curves), ("b", curves)], across=2)
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["red"]


def test_no_label_makes_no_legend() -> None:
    figure = canvas()
    paint_panels(figure, [("", [Curve(POINTS, RED)])])
    assert figure.legends == []


def test_only_the_lowest_panels_name_the_steps_and_empty_places_are_gone() -> None:
    figure = canvas()
    panels = [(title, [Curve(POINTS, RED)]) for title in "abcde"]
    axes = paint_panels(figure, panels, across=3, y_label="miou", share_y=True)
    assert [each.get_title() for each in axes] == [*"abcde"]
    assert [each.get_xlabel() for each in axes] == ["", "", *["optimizer step"] * 3]
    assert len(figure.axes) == 5
    assert figure.get_supylabel() == "miou"
