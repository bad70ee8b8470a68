"""What the attacks share: forked commands, kills at a system call, planted bugs, changes to bundles."""

__all__: list[str] = []
