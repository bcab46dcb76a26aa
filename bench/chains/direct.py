"""No chain: the load connects to the daemon. What this machine can do."""

from chains.base import Chain


class Direct(Chain):
    name = "direct"
    about = "no program between load and daemon"

    def launch(self):
        self.address = self.target
