#!/usr/bin/env python3
"""What people do all day, each in the middle of it when the hub is killed and when the network is
cut: git, sftp, sshfs, rsync and docker over ssh, ssh's own forwards, PostgreSQL, VNC and RDP.

All of them run at once, over links of some delay, and share both faults: first `kill -9` of the hub,
then a cut of both links. A habit may not fail and may not be started again, and what it has made is
compared byte for byte, row by row or pixel by pixel.

Two habits are elsewhere: Ansible over 20 devices in fleet_ansible.py, and a ControlMaster in
by_name.py, each across a killed hub.
"""

import concurrent.futures
import contextlib
import time

import habits_data
import habits_desktop
import habits_ssh
import harness
import network
from habits_world import Ground
from harness import DEVICE, check

DELAY_MS = 5
CUT_SECONDS = 2
MIDDLE_SECONDS = 90
HABITS = [
    habits_ssh.Clone,
    habits_ssh.Push,
    habits_ssh.SftpPut,
    habits_ssh.SftpGet,
    habits_ssh.Sshfs,
    habits_ssh.Rsync,
    habits_ssh.DynamicForward,
    habits_ssh.LocalForward,
    habits_ssh.RemoteForward,
    habits_data.DockerOverSsh,
    habits_data.DockerSocket,
    habits_data.Postgres,
    habits_desktop.Vnc,
    habits_desktop.RdpSessions,
    habits_desktop.RdpStorm,
]


def main(lab):
    with network.World(lab, delay_ms=DELAY_MS) as world:
        ground = Ground(lab, world)
        try:
            run(lab, ground)
        finally:
            ground.close()


def run(lab, ground):
    habits = [Running(habit(ground)) for habit in HABITS]
    idle = ground.descriptors()
    try:
        at_once(habits, Running.start)
        with lab.step("each habit is in the middle of its work"):
            at_once(habits, Running.wait_for_middle)
            going = [one for one in habits if not one.error]
            check(going, "none of them is")
            print(f"        {len(going)} of {len(habits)}; {ground.gate.held()} connections are held up by the gate")
        with lab.step("the hub is killed in the middle, and started again"):
            for one in habits:
                one.check_middle()
            ground.hub.process.kill()
            for one in habits:
                one.in_the_dark("the hub is down")
            ground.hub.start(log_level="debug")
            ground.wait_for_resumption("the hub was killed")
            at_once(habits, Running.moves_again)
        with lab.step(f"both links are cut in the middle, for {CUT_SECONDS} s"):
            for one in habits:
                one.check_middle()
            links = (ground.world.service_link, ground.world.device_link)
            for link in links:
                link.cut()
            for one in habits:
                one.in_the_dark("the links are cut")
            time.sleep(CUT_SECONDS)
            for link in links:
                link.mend()
            ground.wait_for_resumption("the links were cut")
        ground.gate.open()
        # In the order of the list, although they end as they like.
        for one in habits:
            with lab.step(one.habit.title):
                one.finish()
    finally:
        for one in habits:
            one.close()
    with lab.step("nothing is left: descriptors of hub and device-proxy are those of before"):
        ground.service.stop()
        ground.plain.stop()
        harness.wait_until(
            lambda: ground.descriptors() <= idle, 20,
            f"from {ground.descriptors()} open files back to {idle}",
        )  # fmt: skip
        check(not ground.lost(), f"sessions were lost: {ground.lost()[:2]}")
    check(all(program.running() for program in (ground.hub.process, ground.device)), f"a program of {DEVICE} has ended")


class Running:
    """A habit, and the first error that it met: it is reported in the habit's own step, and the others
    go on without it."""

    def __init__(self, habit):
        self.habit = habit
        self.error = None

    def attempt(self, work, *arguments):
        if self.error:
            return
        try:
            work(*arguments)
        except Exception as error:  # reported in its step
            self.error = error

    def start(self):
        self.attempt(self.habit.start)

    def wait_for_middle(self):
        self.attempt(harness.wait_until, self.habit.in_the_middle, MIDDLE_SECONDS, f"{self.habit.title}: under way")

    def check_middle(self):
        self.attempt(self._check_middle)

    def _check_middle(self):
        check(self.habit.in_the_middle(), "it was done before it was cut")

    def in_the_dark(self, fault):
        self.attempt(self.habit.in_the_dark, fault)

    def moves_again(self):
        self.attempt(self.habit.moves_again)

    def finish(self):
        if self.error:
            raise self.error
        self.habit.finish()

    def close(self):
        # Also what began only in part.
        with contextlib.suppress(Exception):
            self.habit.close()


def at_once(habits, work):
    with concurrent.futures.ThreadPoolExecutor(len(habits)) as pool:
        list(pool.map(work, habits))


if __name__ == "__main__":
    harness.use_venv()
    harness.run(main)
