"""The chains of programs that `bench/compare` can measure, by name.

A new one is a class in a file here and a name in `CHAINS`; see `bench/README.md`.
"""

from chains.direct import Direct
from chains.haproxy import Haproxy
from chains.ours import Plain, Session
from chains.ssh import Ssh
from chains.stunnel import Stunnel
from chains.tunnels import Bore, Wstunnel

CHAINS = (Direct, Haproxy, Plain, Session, Stunnel, Wstunnel, Ssh, Bore)
ALL = {chain.name: chain for chain in CHAINS}
