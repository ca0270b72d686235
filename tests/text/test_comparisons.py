from minirlhf.text.comparisons import group_comparisons


def test_a_summary_cut_at_the_limit_is_another_than_one_that_ended():
    rows = [
        {"prompt": "p", "chosen": " a", "rejected": " b"},
        {"prompt": "q", "chosen": " a", "rejected": " c"},
        {"prompt": "p", "chosen": " c", "rejected": " b", "chosen_ended": True, "rejected_ended": False},
    ]
    assert group_comparisons(rows) == [
        {
            "prompt": "p",
            "summaries": [(" a", True), (" b", True), (" c", True), (" b", False)],
            "pairs": [(0, 1), (2, 3)],
        },
        {"prompt": "q", "summaries": [(" a", True), (" c", True)], "pairs": [(0, 1)]},
    ]
