"""The parts that all three dashboards are made of: each look of a panel once.

Every panel says in its description what it shows, and which entries of the runbook belong to it.
"""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeNamePlacement,
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOK = "docs/operations.md"
TAG = "tillstream"

STARTS = 'changes(process_start_time_seconds{job="tillstream"}[1m]) > 0'
ALERTS = 'ALERTS{alertname!="", alertstate="firing", severity="critical"} > 0'
"""What marks all panels of a dashboard."""

Query = tuple[str, str]
"""An expression, and how each of its series is called: ``{{lane}}``."""

Levels = tuple[float | None, float]
"""Where a value becomes amber (None: never), and where red."""


def page(uid: str, title: str, description: str, *, span: str) -> dashboard.Dashboard:
    """A dashboard without panels: linked with the others, marked where a process began and an alert fired.

    Args:
        uid: in its address; never changes.
        title: for people.
        description: what it answers.
        span: what it shows at first: ``1h``.
    """
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time(f"now-{span}", "now")
        .refresh("10s")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Tillstream")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(False)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .annotation(_Marks("Starts", STARTS, "blue", title="{{service}} began", text="{{instance}}"))
        .annotation(_Marks("Critical alerts", ALERTS, "red", title="{{alertname}}", text=f"{RUNBOOK}, Runbook"))
    )


def choice(name: str, label: str, values: str, *, first: str | None = None) -> dashboard.QueryVariable:
    """A choice among a label's values.

    Args:
        name: in expressions, after a dollar sign.
        label: for people.
        values: ``label_values(metric, label)``.
        first: what is chosen at first, and always one alone; None: all, and any number of them.
    """
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )
    if first is not None:
        return variable.current(VariableOption(selected=True, text=first, value=first))
    return variable.multi(True).include_all(True).all_value(".*")


def number(
    title: str,
    description: str,
    query: str,
    *,
    unit: str,
    levels: Levels | None = None,
    width: int = 4,
    decimals: int | None = None,
    runbook: Sequence[str] = (),
) -> stat.Panel:
    """One large number, with its course behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(_with_runbook(description, runbook))
        .datasource(SOURCE)
        .with_target(_target((query, ""), "A"))
        .unit(unit)
        .thresholds(_steps(levels))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .color_mode(BigValueColorMode.VALUE if levels is None else BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(width)
        .height(5)
    )
    return panel if decimals is None else panel.decimals(decimals)


def course(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    levels: Levels | None = None,
    stacked: bool = False,
    width: int = 12,
    runbook: Sequence[str] = (),
) -> timeseries.Panel:
    """Lines over time; what is right only above or below something shows where that is."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(_with_runbook(description, runbook))
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .fill_opacity(30 if stacked else 10)
        .line_width(1)
        .span_nulls(60_000)  # ms: a scrape that is missed leaves no gap
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .span(width)
        .height(8)
    )
    for letter, query in zip("ABCDEF", queries, strict=False):
        panel = panel.with_target(_target(query, letter))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if levels is not None:
        panel = panel.thresholds(_steps(levels)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    return panel


def ranking(title: str, description: str, query: Query, *, unit: str, width: int = 12) -> bargauge.Panel:
    """Names with bars, the largest first: as it is now."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(_target((f"sort_desc({query[0]})", query[1]), "A").instant())
        .unit(unit)
        .min(0)
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.GRADIENT)
        .name_placement(BarGaugeNamePlacement.LEFT)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_BL_PU))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(width)
        .height(10)
    )


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    expression, legend = query
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).datasource(SOURCE)


class _Marks(Builder[AnnotationQuery]):
    """Vertical lines on all panels, where an expression has a value."""

    def __init__(self, name: str, expression: str, color: str, *, title: str, text: str) -> None:
        self._query = _TitledQuery(name, SOURCE, icon_color=color, expr=expression)
        self._query.title, self._query.text = title, text

    def build(self) -> AnnotationQuery:
        return self._query


class _TitledQuery(AnnotationQuery):
    """With two fields of the Prometheus source that the types leave out; without them every mark is called Alert."""

    title = ""
    text = ""

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {"titleFormat": self.title, "textFormat": self.text}


def _steps(levels: Levels | None) -> dashboard.ThresholdsConfig:
    if levels is None:
        steps = [Threshold(None, "text")]
    else:
        amber, red = levels
        steps = [Threshold(None, "green"), Threshold(red, "red")]
        if amber is not None:
            steps.insert(1, Threshold(amber, "orange"))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _with_runbook(description: str, alerts: Sequence[str]) -> str:
    entries = ", ".join(f"{RUNBOOK}#{alert.lower()}" for alert in alerts)
    return f"{description}\n\nRunbook: {entries}" if alerts else description
