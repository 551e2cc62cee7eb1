"""The replay itself: what it counts as sent, and when it falls short. All situations are `make replay`'s."""

from __future__ import annotations

from dataclasses import replace

from tests.prometheus.replay import health, servers, services  # noqa: F401  they register their situations
from tests.prometheus.replay.history import _firing, inlined, play_after
from tests.prometheus.replay.play import GROUP_WAIT, LOOK, OURS, Labels, Result, _judge, affected, load, play
from tests.prometheus.replay.situations import SITUATIONS, Situation
from tests.prometheus.replay.summary import summarize

FAULT = Situation("fault", lambda *_: None, late=5, start=1)
HEALTHY = Situation("healthy", lambda *_: None, late=0, start=1)
DOWN = {"alertname": "ServiceDown", "severity": "critical", "job": "app", "service": "s"}
FAILING = {"alertname": "HttpEndpointFailing", "severity": "warning", "job": "app", "service": "s", "endpoint": "/a"}
BUSY = {"alertname": "HostCpuBusy", "severity": "info", "instance": "n"}


def judged(*looks: list[Labels], situation: Situation = FAULT) -> Result:
    return _judge(situation, [(number * GROUP_WAIT, alerts) for number, alerts in enumerate(looks)], True)


def test_an_alert_is_sent_once_it_has_fired_from_look_to_look_and_again_when_it_comes_back() -> None:
    quiet: list[Labels] = []
    result = judged(quiet, quiet, [DOWN], [DOWN], [DOWN], quiet, [DOWN], [DOWN])
    assert (result.first, result.minutes, result.sent) == ("ServiceDown", 0, ["ServiceDown", "ServiceDown"])
    assert judged(quiet, quiet, [DOWN], quiet, quiet).sent == []


def test_inhibited_alerts_and_severity_info_are_not_sent() -> None:
    result = judged([], [], [FAILING, DOWN, BUSY], [FAILING, DOWN, BUSY], [FAILING, BUSY], [FAILING, BUSY])
    assert result.sent == ["ServiceDown", "HttpEndpointFailing"]


def test_targets_that_are_lost_together_are_one_message_and_what_joins_later_is_another() -> None:
    host, rack = ({"alertname": "TargetDown", "severity": "warning", "area": "monitoring", "job": job} for job in "ab")
    result = judged([], [], [host, rack], [host, rack])
    assert (result.sent, result.messages) == (["TargetDown", "TargetDown"], 1)
    result = judged([], [], [host], [host], [host, rack], [host, rack])
    assert (result.sent, result.messages) == (["TargetDown", "TargetDown"], 2)
    result = judged([], [], [host, BUSY | {"severity": "warning"}], [host, BUSY | {"severity": "warning"}])
    assert result.messages == 2


def test_what_fired_before_a_fault_is_not_its_alert_but_a_healthy_situations_false_alarm() -> None:
    looks: list[list[Labels]] = [[DOWN]] * 4
    assert (judged(*looks).minutes, judged(*looks).sent) == (None, [])
    assert judged(*looks, situation=HEALTHY).sent == ["ServiceDown"]


def test_a_summary_names_each_target_that_is_missed() -> None:
    good = Result(FAULT, ["ServiceDown"], 1, "ServiceDown", 2)
    fine = summarize([good, Result(HEALTHY)])
    assert fine.missed() == []
    assert "1 of 1 faults detected (0 too late), median 2.0 minutes, 1.00 sent for each, in 1.00 messages" in str(fine)
    for change in ({"detected": 0}, {"late": 1}, {"median": 3.5}, {"sent": 1.4}, {"false": 1}):
        assert len(replace(fine, **change).missed()) == 1, change


def test_only_the_rules_that_a_change_can_reach_are_played() -> None:
    groups = affected(load(OURS), {"pg_up"})
    names = {rule.get("alert") or rule["record"] for group in groups for rule in group["rules"]}
    assert names == {"PostgresDown", "TargetVanished"}


def test_a_fault_is_detected_and_a_restart_is_not_reported() -> None:
    """Two situations through promtool; all of them are played by `make replay`."""
    named = {one.name: one for one in SITUATIONS}
    detected, restart = play([named["database exporter down"], named["Prometheus restarts"]], OURS)
    assert (detected.first, detected.sent) == ("TargetDown", ["TargetDown"])
    assert restart.sent == []


def test_recorded_series_are_replaced_by_what_they_are_recorded_from_as_far_as_the_selector_fits() -> None:
    def record(slo: str) -> dict[str, object]:
        return {"record": "errors:ratio", "expr": f'rate(errors{{slo="{slo}"}}[3d])', "labels": {"slo": slo}}

    alert = {"alert": "Burn", "expr": 'errors:ratio{slo="a"} > 0.1', "for": "2m", "labels": {"severity": "page"}}
    (burn,) = inlined([{"name": "one", "rules": [record("a"), record("b"), alert]}])
    assert burn.expr == '((rate(errors{slo="a"}[3d]))) > 0.1'
    assert (burn.name, burn.holds, burn.labels) == ("Burn", 120, (("severity", "page"),))


def test_an_alert_that_is_asked_for_fires_when_it_has_held_for_long_enough_or_from_the_beginning() -> None:
    slow, old = {"rule": "0", "alertname": "Slow"}, {"rule": "1", "alertname": "Old"}
    looks = range(0, 5 * LOOK, LOOK)
    holding = {look: [old] for look in looks} | {look: [old, slow] for look in looks[2:]}
    firing = [[alert["alertname"] for alert in alerts] for _, alerts in _firing(looks, holding, {0: 2 * LOOK, 1: 600})]
    assert firing == [["Old"], ["Old"], ["Old"], ["Old"], ["Old", "Slow"]]


def test_a_window_of_hours_is_not_judged_by_half_an_hour() -> None:
    """What half an hour of health makes much of is little after six."""
    alert = {
        "alert": "Burn",
        "expr": "sum(rate(db_query_errors_total[6h])) / sum(rate(db_transactions_total[6h])) > 0.002",
    }
    group = {"name": "one", "rules": [alert]}
    chosen = [one for one in SITUATIONS if one.name == "queries fail"]
    (after_hours,) = play_after(6, chosen, [group])
    (after_none,) = play_after(0, chosen, [group])
    assert after_none.minutes is not None
    assert after_hours.minutes is None or after_hours.minutes > 4 * after_none.minutes
