"""`python -m node`: one node, started by hand, for instance under a debugger or a profiler.

`kappahop run … --by-hand 2,3` waits for nodes 2 and 3 and prints the line that starts each. The run directory must hold the
scenario and the deployment that the command wrote there and, on tcp, the keys: `keys/public.json` and this node's own secret,
no other process's.
"""

import argparse
import sys
from pathlib import Path

from node.process import run_node


def main() -> int:
    """Parse the arguments and be that node."""
    parser = argparse.ArgumentParser(prog="python -m node", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the run's directory")
    parser.add_argument("--agent", type=int, required=True, help="agent id, from 0")
    parser.add_argument("--control", required=True, help="control address of the coordinator, e.g. tcp://10.0.0.1:6000")
    parser.add_argument("--bind", default="tcp://127.0.0.1:*", help="where this node's inbox listens (default %(default)s)")
    arguments = parser.parse_args()
    try:
        return run_node(arguments.run, arguments.agent, arguments.control, arguments.bind)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
