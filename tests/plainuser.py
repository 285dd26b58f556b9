"""A plain user's uid and no right but to read: the checkout may lie in a folder that only its owner enters."""

NOBODY = 65_534
AS_NOBODY = [
    "/usr/bin/setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
]
