"""The tests that `pytest -m fast` runs: the inner loop, under 30 s on two cores."""

# Files and folders whose tests need little or no network and few processes.
FAST = (
    "dispatch/limits/adaptive/test_circuit.py",
    "dispatch/limits/adaptive/test_cubic.py",
    "dispatch/limits/adaptive/test_meter.py",
    "dispatch/limits/adaptive/test_noise.py",
    "dispatch/limits/test_admission.py",
    "dispatch/limits/test_budgets.py",
    "dispatch/limits/test_tokens.py",
    "dispatch/limits/test_window.py",
    "dispatch/online/test_online.py",
    "dispatch/test_retry.py",
    "docs",
    "job",
    "prompts",
    "requests",
    "staging",
    "tables/test_tables.py",
    "test_batch_format.py",
    "test_disk.py",
    "test_house.py",
    "images",
    "init/test_init.py",
    "test_pricing.py",
    "test_promises.py",
    "test_replies.py",
    "test_report.py",
)
# The tests in them that take seconds.
SLOW = (
    "test_a_row_that_alone_is_throttled_does_not_hold_up_the_others",
    "test_a_token_limit_is_used_and_nothing_is_refused",
    "test_memory_is_flat",
    "test_modes_follow_the_umask",
    "test_other_prompts_may_be_named",
    "test_starting_is_light",
    "test_templates_are_bounded",
)
