"""`kill -9` under write load loses nothing that was acknowledged."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading

from edgewise.store.sqlite import open_store

PROGRAM = """
import asyncio, itertools, os, sys
from edgewise.store.contract import ANY, EventRow, Key, Mark, Put, PutStatus, Transaction
from edgewise.store.sqlite import open_store

async def main(path, life):
    store = await open_store(path)
    async def writer(number):
        key = Key("Instance", "default", f"{life}-{number}")
        await store.write(Transaction(now=1.0, writes=(Put(key=key, spec=b"spec" * 50, uid=key.name),)))
        for turn in itertools.count(1):
            written = await store.write(Transaction(
                now=1.0,
                writes=(PutStatus(key=key, status=b"%d" % turn, expect=turn - 1),),
                events=(EventRow(at=1.0, type="Normal", reason="Turned", message=str(turn), source=key.name),),
                marks=(Mark(agent=key.name, incarnation="i", lane="status", number=turn),),
            ))
            os.write(1, f"{number} {turn} {written.revision}\\n".encode())
    await asyncio.gather(*(writer(number) for number in range(50)))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def live_and_die(path, life, lines_wanted):
    """Run the program until it acknowledged enough, kill it with -9, and return all that it acknowledged."""
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(life)], stdout=subprocess.PIPE)
    deadline = threading.Timer(60, child.kill)
    deadline.start()
    try:
        lines = []
        for line in child.stdout:
            lines.append(line)
            if len(lines) == lines_wanted:
                os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    finally:
        deadline.cancel()
        child.kill()
        child.stdout.close()
    # The last line may be torn: it was then not acknowledged.
    return [tuple(map(int, line.split())) for line in lines if line.endswith(b"\n")]


async def test_nothing_acknowledged_is_lost(tmp_path):
    path = tmp_path / "store.db"
    everything = {}
    newest = 0
    for life, lines_wanted in enumerate((300, 1500, 700)):
        acknowledged = await asyncio.to_thread(live_and_die, path, life, lines_wanted)
        assert len(acknowledged) >= lines_wanted
        for number, turn, revision in acknowledged:
            everything[f"{life}-{number}"] = turn
            newest = max(newest, revision)
        store = await open_store(path)
        assert store.revision >= newest
        page = await store.list("Instance", limit=1000)
        documents = {document.key.name: document for document in page.documents}
        marks = {mark.agent: mark.number for mark in await store.all_marks()}
        for name, turn in everything.items():
            assert int(documents[name].status) >= turn
            # A transaction is there as a whole: status, mark and event together.
            assert marks[name] == int(documents[name].status)
            assert len(await store.events(source=name, limit=1000)) == marks[name]
        seen = []
        async with contextlib.aclosing(store.watch(0)) as watch, asyncio.timeout(30):
            while not seen or seen[-1] < store.revision:
                seen.extend(change.revision for change in await anext(watch))
        assert seen == list(range(1, store.revision + 1))
        await store.close()
