"""A hub that lets one policy and one device have all that it can do: what is measured is the hub, not
its defaults."""

RATES = ("initiations", "methods", "twin-writes", "requests")


def environment(folder, name):
    """For `harness.Hub.start`."""
    none = [f"{rate}-per-second = 0" for rate in RATES]
    of_devices = [line for line in none if not line.startswith("requests")]
    of_devices += ["telemetry-per-second = 0", "twin-requests-per-second = 0", "connects-per-minute = 0"]
    tables = {
        "limits": none,
        "limits.each-policy": ["streams = 0", *none],
        "limits.each-device": ["streams = 0", *of_devices],
    }
    file = folder / f"{name}.toml"
    file.write_text("\n".join(line for table, lines in tables.items() for line in (f"[{table}]", *lines)))
    return {"STREAM_HUB_CONFIG": str(file)}
