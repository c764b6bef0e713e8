"""The page: whole by itself, escaped, and it says what the ledger says."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from tests.helpers.facts import HOUR

from gpuwaste.model.errors import InputError
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.report.charts import WIDTH, heat, segments, timeline, waterfall
from gpuwaste.report.html import render_report
from gpuwaste.report.summary import summarize

from .ledgers import real_hour, repeated, row, table

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
VOID = {"meta", "link", "rect", "col", "br"}


def page(ledger, **more):
    return render_report(summarize(ledger), title=more.pop("title", "November"), generated_at=NOW, **more)


def day(hours=24, **more):
    return repeated([HOUR + timedelta(hours=i) for i in range(hours)], **more)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text, self.links, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = _Reader()
    reader.feed(html)
    assert reader.open == []
    return reader, re.sub(r"\s+", " ", "".join(reader.text))


def test_the_page_is_whole_by_itself():
    reader, _ = read(page(day(2)))
    assert reader.links == ["data:,"]
    assert "script" not in reader.tags
    assert "@import" not in page(day(2))
    assert "url(" not in page(day(2))


def test_the_headline_is_the_ledgers():
    _, text = read(page(real_hour()))
    assert "Of $6.40 paid for GPUs, $2.72 did work and $3.68 was wasted." in text
    assert "2 GPUs on 1 node" in text


def test_without_a_price_the_page_speaks_of_time():
    _, text = read(page(real_hour(price=None)))
    assert "No price is known." in text
    assert "$" not in text.replace("$0", "")


def test_a_month_is_projected_from_a_day_on():
    assert "projected" not in read(page(day(23)))[1]
    _, text = read(page(day(24)))
    assert "Waste a month, projected$2,686.40" in text  # 3.68 an hour × 730


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "a&b"])
def test_names_cannot_break_the_page(name):
    ledger = table(
        row(
            owned=NS_PER_HOUR,
            held=NS_PER_HOUR,
            idle=NS_PER_HOUR,
            team=name,
            workload_name=name,
            pool=name,
            namespace=name,
        )
    )
    reader, text = read(page(ledger, title=name, advice={(name, "", name): name}, notes=(name,)))
    assert "script" not in reader.tags
    assert "img" not in reader.tags
    assert text.count(re.sub(r"\s+", " ", name)) >= 4


def test_commands_in_advice_are_set_as_code():
    html = page(real_hour(), advice={("team-a", "Pod", "web"): "Ask `gpuwaste-agent doctor <b>`, then wait."})
    assert "Ask <code>gpuwaste-agent doctor &lt;b&gt;</code>, then wait." in html


def test_advice_stands_beside_its_workload():
    _, text = read(page(real_hour(), advice={("team-a", "Pod", "web"): "Share the GPU."}))
    assert re.search(r"web\s*team-a · Pod.*Share the GPU\.", text)


def test_a_plan_is_shown_with_its_bound_and_its_savings_apart():
    plan = {
        "pool": "H100",
        "objective": {"current": "12", "planned": "8", "bound": "7.9", "gap": "0.0126", "currency": "USD"},
        "savings": {"cashNow": "2920", "capacityFreedGPUHours": "100", "currency": "USD"},
        "moves": 3,
        "actions": [{"type": "DrainNode", "targetRef": {"kind": "Node", "name": "node-a"}, "savings": {}}],
    }
    _, text = read(page(real_hour(), plan=plan))
    for expected in ("No plan goes below$7.90", "gap 1.26 %", "$2,920.00", "DrainNode", "Node node-a"):
        assert expected in text


@pytest.mark.parametrize(
    ("plan", "message"),
    [({}, "`objective` is missing"), ({"objective": {"gap": "x"}}, "`gap` must be a number")],
)
def test_a_broken_plan_is_refused(plan, message):
    with pytest.raises(InputError, match=message):
        page(real_hour(), plan=plan)


def test_the_waterfall_ends_where_work_begins():
    steps = waterfall(summarize(real_hour()).total)
    assert steps[0].ns == sum(step.ns for step in steps[1:])
    assert steps[-2].x == pytest.approx(steps[-1].width)


def test_bars_fill_their_width():
    total = summarize(real_hour()).total
    bar = segments(total, scale_ns=total.time("effective") + total.time("waste") + total.time("lent"))
    assert sum(part.width for part in bar) == pytest.approx(WIDTH)


def test_the_heat_strip_leaves_missing_hours_empty():
    ledger = repeated([HOUR, HOUR + timedelta(hours=2)])
    titles, rows = heat(summarize(ledger))
    assert titles == ["09", "10", "11"]
    assert [[cell.level is None for cell in one.cells] for one in rows] == [[False, True, False]]


def test_long_periods_are_drawn_by_day():
    ledger = repeated([HOUR + timedelta(hours=25 * i) for i in range(4)])
    titles, rows = heat(summarize(ledger))
    assert len(titles) == 24
    assert [row.label for row in rows] == ["Mon 2 Nov", "Tue 3 Nov", "Wed 4 Nov", "Thu 5 Nov"]


def test_the_timeline_is_as_high_as_what_was_paid_for():
    columns = timeline(summarize(day(3)))
    assert min(part.y for part in columns) == pytest.approx(0)


def test_equal_input_gives_an_equal_page():
    assert page(day(2)) == page(day(2))


def test_the_headline_says_how_much_of_the_waste_is_unmeasured():
    one = row(owned=2 * NS_PER_HOUR, held=2 * NS_PER_HOUR, idle=NS_PER_HOUR, unmeasured=NS_PER_HOUR)
    _, text = read(page(table(one)))
    assert re.search(r"was wasted, of which \S+ is unmeasured|were wasted, of which 1\.0 are unmeasured", text)
