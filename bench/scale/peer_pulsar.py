"""N jobs through Galaxy Pulsar: RabbitMQ, manager queued_cli with its Slurm plugin, inputs and outputs over HTTP.

The agent is `pulsar-main`; the other side is Pulsar's own client. Prints the seconds from submission to the final status of
each job. ARGUMENTS: N, AMQP URL, an empty folder, the file that Slurm's commands on PATH leave a line in.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
from amqp.exceptions import NotFound
from kombu import Connection
from pulsar.client.manager import build_client_manager
from pulsar.client.staging.inputs import ClientInputs
from pulsar.client.staging.models import ClientJobDescription, ClientOutputs
from pulsar.client.staging.up import submit_job


class Files(BaseHTTPRequestHandler):
    """What Galaxy gives to Pulsar: a place to get inputs from, and to send outputs to."""

    received = set()
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(Path(self._path()).read_bytes())

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.received.add(self._path())
        self._answer(b"")

    def _path(self):
        return parse_qs(urlsplit(self.path).query)["path"][0]

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def start_agent(folder, url):
    for name in ("staging", "persistence", "config"):
        (folder / name).mkdir()
    (folder / "config" / "app.yml").write_text(json.dumps({
        "message_queue_url": url, "staging_directory": str(folder / "staging"),
        "persistence_directory": str(folder / "persistence"), "tool_dependency_dir": "none", "conda_auto_init": False,
        "managers": {"_default_": {"type": "queued_cli", "job_plugin": "Slurm", "shell_plugin": "LocalShell",
                                   "job_--mem": "200", "job_-c": "1"}},
    }))  # fmt: skip
    log = open(folder / "agent.log", "wb")
    command = [str(Path(sys.executable).parent / "pulsar-main"), "-c", str(folder / "config"),
               "--app_conf_path", str(folder / "config" / "app.yml")]  # fmt: skip
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def wait_until_it_listens(url):
    """What is sent before is lost."""
    with Connection(url) as connection:
        for _ in range(600):
            try:
                with connection.channel() as channel:
                    channel.queue_declare("pulsar__setup", passive=True)
                return
            except NotFound:
                time.sleep(0.1)
    raise SystemExit("pulsar: the agent does not listen")


def submit(manager, folder, endpoint, number):
    place = folder / "galaxy" / str(number)
    work = place / "working"
    work.mkdir(parents=True)
    source, target = place / "input.dat", place / "output.dat"
    source.write_bytes(b"x" * 10_000)
    client = manager.get_client(
        {
            "jobs_directory": str(folder / "staging"),
            "default_file_action": "remote_transfer",
            "files_endpoint": endpoint,
        },
        str(number),
    )
    submit_job(client, ClientJobDescription(
        command_line=f"head -c 100 {source} > {target}",
        client_inputs=ClientInputs.for_simple_input_paths([str(source)]),
        client_outputs=ClientOutputs(working_directory=str(work), output_files=[str(target)]),
        working_directory=str(work),
    ))  # fmt: skip
    return str(target)


def main(count, url, folder, calls):
    files = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=files.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{files.server_port}/files"
    agent = start_agent(folder, url)
    wait_until_it_listens(url)
    manager = build_client_manager(amqp_url=url)
    ends, bad, told = {}, [], threading.Condition()

    def hear(status):
        with told:
            if str(status.get("complete")).lower() == "true":
                ends.setdefault(str(status["job_id"]), time.perf_counter())
                if status.get("returncode") != 0:
                    bad.append(status)
            told.notify_all()

    def wait_for(many):
        with told:
            if not told.wait_for(lambda: len(ends) >= many, timeout=300):
                raise SystemExit(f"pulsar: {many - len(ends)} of {many} jobs were not answered")

    try:
        manager.ensure_has_status_update_callback(hear)
        wanted = [submit(manager, folder, endpoint, 0)]
        wait_for(1)
        calls.write_text("")
        begun = {}
        first = time.perf_counter()
        for number in range(1, count + 1):
            begun[str(number)] = time.perf_counter()
            wanted.append(submit(manager, folder, endpoint, number))
        wait_for(count + 1)
        if bad or not Files.received.issuperset(wanted):
            raise SystemExit(f"pulsar: {bad[:1]} or outputs did not come: {sorted(Files.received)[:3]}")
        megabytes = psutil.Process(agent.pid).memory_info().rss / 1e6
    finally:
        manager.shutdown()
        agent.terminate()
        agent.wait(30)
    took = [ends[number] - begun[number] for number in begun]
    print(json.dumps({"seconds": max(ends.values()) - first, "each": took, "agent_mb": megabytes}), flush=True)
    os._exit(0)  # the client's threads wait for messages for ever


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
