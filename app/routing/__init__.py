"""Which variant answers, and what the comparison of variants says. Pure code: clock and randomness are injected."""
