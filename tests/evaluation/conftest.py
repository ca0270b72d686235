import pytest


@pytest.fixture(scope="session")
def params(make_settings):
    """Small settings that evaluate needs."""
    import json

    from minirlhf.settings.params import parse_params

    settings = make_settings()
    settings["ppo"] |= {"max_new_tokens": 8, "temperature": 1.0}
    settings["evaluate"]["batch_size"] = 16
    return parse_params(json.dumps(settings), "test")
