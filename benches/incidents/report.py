"""The comparison's tables, from the results of its tests."""

import statistics

from contestants import CONTESTANTS, LIVENESS_PERIOD, LIVENESS_TIMEOUT, PERIOD, SCALE, STOP, TIMEOUT, WORKER_TIMEOUT, HEALTHCHECK
from incidents import INCIDENTS

# Answers, and seconds.
COSTS, UNITS = ("lost", "without_service"), ("lost", "s")
RIGHT = ("restarted", "left alone", "repaired")


def select(results, contestant=None, incident=None):
    return [r for r in results if contestant in (None, r["contestant"]) and incident in (None, r["incident"])]


def add_losses(results):
    """What an innocent kill cost: beyond what the same incident costs without a watchdog."""
    for result in results:
        if result["verdict"] != "innocent kill":
            continue
        for cost in COSTS:
            control = [r[cost] for r in select(results, "nobody", result["incident"]) if cost in r]
            result[f"{cost}_by_kill"] = max(0, round(result[cost] - statistics.median(control), 1)) if control else None


def times(results):
    return [r["seconds_to_healthy"] for r in results if r["verdict"] == "restarted"]


def mean(values):
    values = list(values)
    return round(statistics.mean(values), 1) if values else None


def median(results, value):
    values = [r[value] for r in results if r.get(value) is not None]
    return statistics.median(values) if values else 0


def summary(results):
    """One row for each contestant."""
    needed = {i.name for i in INCIDENTS if i.needs_restart}
    judged = {i.name for i in INCIDENTS if i.judged}
    rows = []
    for contestant in CONTESTANTS:
        own = [r for r in select(results, contestant.name) if r["verdict"] not in ("n/a", "error") and r["incident"] in judged]
        if not own:
            continue
        restarts = [r for r in own if r["incident"] in needed]
        others = [r for r in own if r["incident"] not in needed]
        made = times(restarts)
        rows.append({
            "contestant": contestant.name,
            "title": contestant.title,
            "needed_restarts_made": len(made),
            "needed_restarts": len(restarts),
            "innocent_kills": sum(r["verdict"] == "innocent kill" for r in others),
            "left_down": sum(r["verdict"] == "left down" for r in others),
            "repaired": sum(r["verdict"] == "repaired" for r in others),
            "others": len(others),
            "lost_per_hang": mean(r["lost"] for r in restarts),
            "seconds_per_hang": mean(r["without_service"] for r in restarts),
            "lost_by_kills": round(sum(r.get("lost_by_kill") or 0 for r in others)),
            "seconds_by_kills": round(sum(r.get("without_service_by_kill") or 0 for r in others)),
            "median_seconds_to_healthy": round(statistics.median(made), 1) if made else None,
            "recorded": sum(r["recorded"] for r in own),
            "errors": sum(r["verdict"] == "error" for r in select(results, contestant.name)),
        })
    return rows


def cell(results):
    """What a contestant did in an incident, over all tests."""
    if not results:
        return ""
    verdicts = [r["verdict"] for r in results]
    count = len(verdicts)

    def share(verdict):
        number = verdicts.count(verdict)
        return "" if number == count else f" ({number} of {count})"
    words = []
    if "restarted" in verdicts or "not restarted" in verdicts:
        made = times(results)
        words.append((f"{statistics.median(made):.1f} s{share('restarted')}" if made else "–") + f", {median(results, 'lost'):.0f} lost")
    for verdict, word in (("innocent kill", "**kill**"), ("left down", "left down"), ("repaired", "repaired"), ("n/a", "n/a"), ("error", "ERROR")):
        if verdict in verdicts:
            words.append(word + share(verdict))
        if verdict == "innocent kill" and verdict in verdicts:
            kills = [r for r in results if r["verdict"] == verdict]
            words[-1] += "".join(f" ({reason})" for reason in sorted({r["detail"] for r in kills if r.get("detail")}))
            words[-1] += "".join(cost(median(kills, f"{c}_by_kill"), unit) for c, unit in zip(COSTS, UNITS))
    return "; ".join(words) or "ok"


def cost(number, unit):
    return f", {number:.0f} {unit}" if round(number) else ""


def unjudged_cell(results):
    """What happened, without a verdict."""
    results = [r for r in results if r["verdict"] == "unjudged"]
    if not results:
        return "n/a"
    killed = sum(bool(r["ended"]) for r in results)
    what = "left alone" if not killed else "killed" if killed == len(results) else f"killed ({killed} of {len(results)})"
    return f"{what}: {median(results, 'lost'):.0f} lost, {median(results, 'without_service'):.0f} s, then {median(results, 'usual_wait'):.1f} s a request"


def rates(results, contestant, incident):
    """Shares of right results and of repairs, and the median time to healthy; None if there is nothing to compare."""
    own = [r for r in select(results, contestant.name, incident.name) if r["verdict"] not in ("n/a", "error", "unjudged")]
    if not own:
        return None
    right = sum(r["verdict"] in RIGHT for r in own) / len(own)
    repaired = sum(r["verdict"] == "repaired" for r in own) / len(own)
    return right, repaired, statistics.median(times(own)) if times(own) else None


def beaten(results):
    """Where a peer was better than this program: right more often, repaired what it left, or healthy 10 % and 0.3 s sooner."""
    lines = []
    for peer in CONTESTANTS[1:-1]:
        right, repaired, sooner = [], [], []
        for incident in INCIDENTS:
            own, theirs = rates(results, CONTESTANTS[0], incident), rates(results, peer, incident)
            if own is None or theirs is None:
                continue
            if theirs[0] > own[0]:
                right.append(incident.title)
            elif theirs[0] == own[0] and theirs[1] > own[1]:
                repaired.append(incident.title)
            elif theirs[0] == own[0] and own[2] and theirs[2] and theirs[2] < min(0.9 * own[2], own[2] - 0.3):
                sooner.append(own[2] - theirs[2])
        parts = [("right more often", right), ("repaired what this program left alone", repaired)]
        found = [f"{what}: {', '.join(which)}" for what, which in parts if which]
        if sooner:
            found.append(f"healthy sooner in {len(sooner)} incidents (by {statistics.median(sooner):.1f} s at the median)")
        if found:
            lines.append(f"{peer.title}: {'; '.join(found)}")
    return lines


def markdown(results, versions, skipped):
    lines = [
        f"Scale 1:{SCALE}: period {PERIOD} s (60 s at full scale), one attempt {TIMEOUT} s (10 s), worker timeout of gunicorn and WatchdogSec= "
        f"{WORKER_TIMEOUT} s (30 s), liveness probe {LIVENESS_PERIOD:.2f} s (10 s) with a timeout of {LIVENESS_TIMEOUT} s (1 s), uvicorn's worker check {HEALTHCHECK} s (5 s), TimeoutStopSec= {STOP} s (30 s).",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    if skipped:
        lines.append("Skipped: " + "; ".join(skipped) + ".")
    lines += [
        "",
        "| contestant | hung backends restarted | median time to healthy | a hang costs | wrong kills | they cost | repaired | left down | recorded |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = summary(results)
    for row in rows:
        healthy = row["median_seconds_to_healthy"]
        lines.append(
            f"| {row['title']} | {row['needed_restarts_made']} of {row['needed_restarts']} | {'–' if healthy is None else f'{healthy} s'} | "
            f"{row['lost_per_hang']} answers, {row['seconds_per_hang']} s | {row['innocent_kills']} of {row['others']} | "
            f"{row['lost_by_kills']} answers, {row['seconds_by_kills']} s | {row['repaired']} | {row['left_down']} | "
            f"{row['recorded']} of {row['needed_restarts'] + row['others']} |")
    names = [row["contestant"] for row in rows]
    for heading, belongs, show in (
        ("needs a restart", lambda i: i.needs_restart, cell),
        ("must be left alone", lambda i: i.judged and not i.needs_restart, cell),
        ("nobody can tell", lambda i: not i.judged, unjudged_cell),
    ):
        incidents = [i for i in INCIDENTS if belongs(i) and select(results, None, i.name)]
        if incidents:
            lines += ["", f"| {heading} | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
            for incident in incidents:
                cells = [show(select(results, name, incident.name)) for name in names]
                lines.append(f"| {incident.title} | " + " | ".join(cells) + " |")
    reasons = {}
    for result in results:
        if result["verdict"] == "n/a":
            reasons.setdefault(f"{result['contestant']}: {result['detail']}", set()).add(result["incident"])
    if reasons:
        lines += ["", "Not applicable:", "", *[f"- {reason} ({', '.join(sorted(incidents))})" for reason, incidents in sorted(reasons.items())]]
    wrong = [r for r in select(results, CONTESTANTS[0].name) if r["verdict"] not in (*RIGHT, "n/a", "unjudged")]
    lines += ["", "Where this program was wrong:" if wrong else "This program was wrong in no test.", ""]
    for incident in INCIDENTS:
        if own := [r for r in wrong if r["incident"] == incident.name]:
            lines.append(f"- {incident.title}: {own[0]['verdict']}, {len(own)} of {len(select(results, CONTESTANTS[0].name, incident.name))}")
    if better := beaten(results):
        lines += ["", "Where a peer was better than this program:", "", *[f"- {line}" for line in better]]
    return "\n".join(lines)
