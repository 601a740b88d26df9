"""How plans, runs, scores, profiles and sweeps show themselves in a notebook: HTML with no script and no address."""
