"""No chain: the load connects to the daemon. This is the limit of the machine."""

from chains.base import Chain


class Direct(Chain):
    name = "direct"
    about = "no program between load and daemon"

    def launch(self):
        self.address = self.target
