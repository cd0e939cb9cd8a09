"""All that touches ppdet: its config, its data sets, cures for its defects."""
