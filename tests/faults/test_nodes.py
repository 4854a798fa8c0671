"""Two nodes, of which one dies: the other goes on alone with the same samples.

The nodes are two network namespaces joined by a cable where namespaces are permitted, else two
agents on the loopback.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import lost_node, runs
from tests.pretraining import launching

PRIVATE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
CABLE = """
unshare --net sleep 600 & other=$!
sleep 0.5
node0=""; node1="nsenter -t $other -n"
ip link set lo up && ip link add helm0 type veth peer name helm1 && ip link set helm1 netns $other
ip addr add 10.77.0.1/24 dev helm0 && ip link set helm0 up
$node1 ip link set lo up; $node1 ip addr add 10.77.0.2/24 dev helm1; $node1 ip link set helm1 up
"""
LOOPBACK = 'node0=""; node1=""; other=""\n'
SCRIPT = """
agent() {{ # number, how to enter the node, address, interface
  rendezvous=is_host=$((1 - $1)),join_timeout=120,last_call_timeout=3
  rendezvous=$rendezvous,keep_alive_interval=1,keep_alive_max_attempt=3
  GLOO_SOCKET_IFNAME=$4 $2 {torchrun} --nnodes 1:2 --nproc-per-node 1 --max-restarts 3 \\
    --rdzv-backend c10d --rdzv-id faults --rdzv-endpoint {host}:{port} --rdzv-conf $rendezvous \\
    --local-addr $3 launch/pretrain.py {flags}
}}
agent 0 "$node0" {host} {first} & zero=$!
agent 1 "$node1" {peer} {second} & one=$!
until [ "$(wc -l < {run}/metrics.jsonl 2>/dev/null || echo 0)" -ge 4 ]; do
  sleep 0.05; kill -0 $zero || exit 9
done
family() {{ echo $1; for child in $(ps -o pid= --ppid $1); do family $child; done; }}
kill -KILL $(family $one)
wait $zero; code=$?
[ -n "$other" ] && kill $other
exit $code
"""


def permitted() -> bool:
    """Whether this user may make network namespaces and cables between them."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    return (
        subprocess.run(
            [*PRIVATE, "bash", "-ec", CABLE + "kill $other"], capture_output=True
        ).returncode
        == 0
    )


@pytest.mark.slow
def test_a_node_dies_and_the_other_goes_on(data: Path, unbroken: Path, tmp_path: Path) -> None:
    run, apart = tmp_path / "run", permitted()
    flags = launching.flags(
        data, run, **runs.SETTINGS, execution__engine="fsdp2", execution__timeout_seconds=20.0
    )
    host, peer = ("10.77.0.1", "10.77.0.2") if apart else ("127.0.0.1", "127.0.0.1")
    first, second = ("helm0", "helm1") if apart else ("lo", "lo")
    script = (CABLE if apart else LOOPBACK) + SCRIPT.format(
        torchrun=shlex.join([sys.executable, "-m", "torch.distributed.run"]),
        flags=shlex.join(flags),
        run=run,
        host=host,
        peer=peer,
        port=29577,
        first=first,
        second=second,
    )
    process = launching.start([*(PRIVATE if apart else []), "bash", "-c", script])
    code, _, err = launching.finish(process)
    assert code == 0, err
    assert "resumed from step-0000000" in err
    lines = launching.lines(run)
    assert {line["ranks"] for line in lines} == {1, 2}, "two ranks before, one after"
    runs.assert_same_within_round_off(run, unbroken)


@pytest.mark.slow
def test_of_three_nodes_one_dies_and_two_go_on(data: Path, unbroken: Path, tmp_path: Path) -> None:
    lost_node.lose_one_of_three(data, unbroken, tmp_path)
