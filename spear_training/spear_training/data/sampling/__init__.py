"""Which sample comes when: a pure function of seed and step, so the step is all that is stored."""
