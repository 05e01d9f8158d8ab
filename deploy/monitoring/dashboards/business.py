"""What the shop sells: for the people who run it."""

from deploy.monitoring.dashboards.panels import choice, course, number, page, ranking
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

IN_WINDOW = '{window="$window"}'


def business(currency: str) -> Dashboard:
    """The rolling window that is chosen, by revenue, product, category and region.

    Args:
        currency: the pipeline's, ISO 4217: the unit of all amounts.
    """
    money = f"currency{currency}"
    return (
        page(
            "tillstream-business",
            "Tillstream: business",
            "What sells, as the live numbers in Redis have it. Each value speaks of the rolling window that is chosen, "
            "which ends now: not of the time between two points.",
            span="1h",
        )
        .with_variable(choice("window", "Window", "label_values(tillstream_sales_orders, window)", first="1h"))
        .with_row(Row("The last $window"))
        .with_panel(
            number(
                "Revenue",
                "Sales less what was refunded, within the last $window.",
                f"tillstream_sales_revenue{IN_WINDOW}",
                unit=money,
                width=6,
            )
        )
        .with_panel(
            number("Orders", "Sales within the last $window.", f"tillstream_sales_orders{IN_WINDOW}", unit="short")
        )
        .with_panel(
            number(
                "Average order value",
                "Revenue of a sale, returns left out. Nothing while nobody buys.",
                f"tillstream_sales_average_order_value{IN_WINDOW}",
                unit=money,
                decimals=2,
            )
        )
        .with_panel(
            number(
                "Units",
                "Pieces sold less pieces brought back.",
                f"tillstream_sales_units{IN_WINDOW}",
                unit="short",
                width=3,
            )
        )
        .with_panel(
            number(
                "Returns",
                "Orders that brought something back.",
                f"tillstream_sales_returns{IN_WINDOW}",
                unit="short",
                width=3,
            )
        )
        .with_panel(number("Refunded", "What returns gave back.", f"tillstream_sales_refunded{IN_WINDOW}", unit=money))
        .with_row(Row("Over time"))
        .with_panel(
            course(
                "Revenue of the rolling window",
                "How the revenue of the last $window has moved.",
                (f"tillstream_sales_revenue{IN_WINDOW}", "revenue"),
                unit=money,
            )
        )
        .with_panel(
            course(
                "Orders and returns of the rolling window",
                "How many orders of each kind the last $window has.",
                (f"tillstream_sales_orders{IN_WINDOW}", "orders"),
                (f"tillstream_sales_returns{IN_WINDOW}", "returns"),
                unit="short",
            )
        )
        .with_panel(
            course(
                "Average order value",
                "By window: the short ones show what happens now, the long ones what is usual.",
                ("tillstream_sales_average_order_value", "{{window}}"),
                unit=money,
            )
        )
        .with_panel(
            course(
                "Accepted a minute",
                "Orders and returns as they arrive, whatever the time that they speak of. Repetitions do not count.",
                ('60 * sum(rate(tillstream_processor_events_total{outcome="accepted"}[$__rate_interval]))', "accepted"),
                unit="short",
            )
        )
        .with_row(Row("Best sellers"))
        .with_panel(
            ranking(
                "Products by revenue",
                "The ten largest within the last $window; the board has more.",
                (f"tillstream_sales_product_revenue{IN_WINDOW}", "{{product_name}}"),
                unit=money,
            )
        )
        .with_panel(
            ranking(
                "Products by units",
                "The ten largest within the last $window; the board has more.",
                (f"tillstream_sales_product_units{IN_WINDOW}", "{{product_name}}"),
                unit="short",
            )
        )
        .with_row(Row("Categories and regions"))
        .with_panel(
            ranking(
                "Categories by revenue",
                "The ten largest within the last $window.",
                (f"tillstream_sales_category_revenue{IN_WINDOW}", "{{category}}"),
                unit=money,
            )
        )
        .with_panel(
            ranking(
                "Regions by revenue",
                "Within the last $window.",
                (f"tillstream_sales_region_revenue{IN_WINDOW}", "{{region}}"),
                unit=money,
            )
        )
        .with_panel(
            course(
                "Orders by category",
                "Sales with at least one line of it: one with two categories counts in both.",
                (f"tillstream_sales_category_orders{IN_WINDOW}", "{{category}}"),
                unit="short",
            )
        )
        .with_panel(
            course(
                "Orders by region",
                "Where they come from, within the last $window.",
                (f"tillstream_sales_region_orders{IN_WINDOW}", "{{region}}"),
                unit="short",
                stacked=True,
            )
        )
    )
