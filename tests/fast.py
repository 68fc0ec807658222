"""The tests that `pytest -m fast` runs: the inner loop, under 30 s on two cores.

They draw fewer examples than the whole suite: FEW instead of 50.
"""

FEW = 20
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
    "staging/test_staging.py",
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
    "test_a_job_for_any_file_can_be_planned",
    "test_a_request_is_one_line",
    "test_a_row_that_alone_is_throttled_does_not_hold_up_the_others",
    "test_a_token_limit_is_used_and_nothing_is_refused",
    "test_an_axis_that_a_table_has_a_column_for_is_refused",
    "test_answers_of_another_kind_are_shown",
    "test_any_header_can_be_planned",
    "test_any_text_of_a_csv_comes_back_unchanged",
    "test_any_text_of_a_jsonl_comes_back_unchanged",
    "test_any_two_ids_have_two_names",
    "test_every_field_of_the_json_is_documented",
    "test_export_makes_everything_again",
    "test_memory_is_flat",
    "test_modes_follow_the_umask",
    "test_other_prompts_may_be_named",
    "test_starting_is_light",
    "test_templates_are_bounded",
    "test_the_deepest_row_that_is_read_goes_through_everything",
    "test_the_next_turn_is_told_what_was_answered",
)
