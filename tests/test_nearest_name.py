from saga_engine.nearest_name import did_you_mean, nearest_name


def test_the_nearest_of_several_names_is_found():
    assert nearest_name("order", ["orders", "border", "cart"]) in ("orders", "border")
    assert nearest_name("ordres", iter(["orders", "cart"])) == "orders"


def test_a_name_that_is_like_no_other_has_no_nearest():
    assert nearest_name("orders", ["cart"]) == nearest_name("orders", []) == ""


def test_a_suggestion_follows_a_sentence():
    assert did_you_mean("ordres", ["orders"]) == " Did you mean orders?"
    assert did_you_mean("orders", ["cart"]) == ""
