"""The comparison's tables, from the results of its tests."""

import statistics

from contestants import CONTESTANTS, PERIOD, SCALE, STOP, TIMEOUT, WORKER_TIMEOUT, HEALTHCHECK
from incidents import INCIDENTS

RIGHT = ("restarted", "left alone", "repaired")


def select(results, contestant=None, incident=None):
    return [r for r in results if contestant in (None, r["contestant"]) and incident in (None, r["incident"])]


def add_losses(results):
    """Requests lost by an innocent kill: beyond those that get no answer in the same incident without a watchdog."""
    for result in results:
        if result["verdict"] != "innocent kill":
            continue
        control = [r["lost"] for r in select(results, "nobody", result["incident"]) if "lost" in r]
        result["lost_by_kill"] = max(0, round(result["lost"] - statistics.median(control))) if control else None


def times(results):
    return [r["seconds_to_healthy"] for r in results if r["verdict"] == "restarted"]


def summary(results):
    """One row for each contestant."""
    needed = {i.name for i in INCIDENTS if i.needs_restart}
    rows = []
    for contestant in CONTESTANTS:
        own = [r for r in select(results, contestant.name) if r["verdict"] not in ("n/a", "error")]
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
            "requests_lost": sum(r.get("lost_by_kill") or 0 for r in others),
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
    if made := times(results):
        words.append(f"{statistics.median(made):.1f} s{share('restarted')}")
    elif "not restarted" in verdicts:
        words.append("–")
    lost = [r["lost_by_kill"] for r in results if r.get("lost_by_kill")]
    for verdict, word in (("innocent kill", "**kill**"), ("left down", "left down"), ("repaired", "repaired"), ("n/a", "n/a"), ("error", "ERROR")):
        if verdict in verdicts:
            words.append(word + share(verdict))
        if verdict == "innocent kill" and lost:
            words[-1] += f", {round(statistics.median(lost))} lost"
    return "; ".join(words) or "ok"


def rates(results, contestant, incident):
    """Shares of right results and of repairs, and the median time to healthy; None if there is nothing to compare."""
    own = [r for r in select(results, contestant.name, incident.name) if r["verdict"] not in ("n/a", "error")]
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
        f"{WORKER_TIMEOUT} s (30 s), uvicorn's worker check {HEALTHCHECK} s (5 s), TimeoutStopSec= {STOP} s (30 s).",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    if skipped:
        lines.append("Skipped: " + "; ".join(skipped) + ".")
    lines += [
        "",
        "| contestant | hung backends restarted | wrong kills | requests lost by them | median time to healthy | repaired | left down | recorded |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = summary(results)
    for row in rows:
        median = row["median_seconds_to_healthy"]
        lines.append(
            f"| {row['title']} | {row['needed_restarts_made']} of {row['needed_restarts']} | {row['innocent_kills']} of {row['others']} | {row['requests_lost']} | "
            f"{'–' if median is None else f'{median} s'} | {row['repaired']} | {row['left_down']} | "
            f"{row['recorded']} of {row['needed_restarts'] + row['others']} |")
    names = [row["contestant"] for row in rows]
    for needed, heading in ((True, "needs a restart"), (False, "must be left alone")):
        incidents = [i for i in INCIDENTS if i.needs_restart == needed and select(results, None, i.name)]
        if incidents:
            lines += ["", f"| {heading} | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
            for incident in incidents:
                cells = [cell(select(results, name, incident.name)) for name in names]
                lines.append(f"| {incident.title} | " + " | ".join(cells) + " |")
    reasons = sorted({f"{r['contestant']}, {r['incident']}: {r['detail']}" for r in results if r["verdict"] == "n/a"})
    if reasons:
        lines += ["", "Not applicable: " + "; ".join(reasons) + "."]
    if better := beaten(results):
        lines += ["", "Where a peer was better than this program:", "", *[f"- {line}" for line in better]]
    return "\n".join(lines)
