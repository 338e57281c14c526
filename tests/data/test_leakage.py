from evalcam_cli.data.identity import Identity
from evalcam_cli.data.leakage import (
    drop_leaks,
    find_conflicts,
    find_crossings,
    find_leaks,
    leak_sentences,
)
from evalcam_cli.data.samples import Sample


def division(**images: str) -> tuple[list[Sample], dict[str, Identity]]:
    """`train_a="a/pb"`: an image of the set train, label a, pixels p, bytes pb; `a/pb/g` is of the group g."""
    samples, identities = [], {}
    for path, text in images.items():
        label, content, *group = text.split("/")
        samples.append(Sample(path, label, path.split("_")[0], "".join(group)))
        identities[path] = Identity(content, content[0], 1, 1)
    return samples, identities


def test_a_clean_division_has_no_leaks() -> None:
    samples, identities = division(train_0="a/p0", train_1="a/p1", val_0="a/q0", test_0="a/r0", test_1="a/r0")

    assert find_leaks(samples, identities) == ()


def test_copies_are_found_with_the_nearest_kin_and_its_place() -> None:
    samples, identities = division(
        train_0="a/p0", train_1="a/p1", train_2="b/q0/g", val_0="a/p1", test_0="a/p2", test_1="b/s0/g", test_2="a/t0"
    )

    rows = [leak.row() for leak in find_leaks(samples, identities)]

    assert rows == [
        ("val_0", "val", "a", "identical bytes", "train_1", "train", "a"),
        ("test_0", "test", "a", "identical pixels", "train_0", "train", "a"),
        ("test_1", "test", "b", "group", "train_2", "train", "b"),
    ]


def test_of_an_image_in_all_sets_val_and_test_copies_leave() -> None:
    samples, identities = division(train_0="a/p0", val_0="a/p1", test_0="a/p2", val_1="a/q0", test_1="a/q1")

    kept, dropped = drop_leaks(samples, find_leaks(samples, identities))

    assert [sample.path for sample in kept] == ["train_0", "test_1"]
    assert dropped == (
        ("val_0", "identical pixels as train_0 in train"),
        ("test_0", "identical pixels as train_0 in train"),
        ("val_1", "identical pixels as test_1 in test"),
    )
    assert find_leaks(kept, identities) == ()


def test_the_sentences_count_each_pair_of_sets() -> None:
    samples, identities = division(
        train_0="a/p0", train_1="a/x0/g", val_0="a/q0", test_0="a/p2", test_1="a/q1", test_2="a/y0/g"
    )

    assert leak_sentences(samples, find_leaks(samples, identities)) == [
        "1 of 3 test images is a pixel copy of training images",
        "1 of 1 val image is a pixel copy of test images",
        "1 of 3 test images shares a group with training images",
    ]


def test_copies_under_two_labels_are_all_named() -> None:
    samples, identities = division(train_0="a/p0", train_1="b/p1", train_2="a/p2", train_3="b/q0")

    conflicts = find_conflicts(samples, identities)

    assert [(leak.path, leak.kind, leak.other) for leak in conflicts] == [
        ("train_0", "two labels", "train_1"),
        ("train_1", "two labels", "train_0"),
        ("train_2", "two labels", "train_1"),
    ]
    assert [path for path, _ in drop_leaks(samples, conflicts)[1]] == ["train_0", "train_1", "train_2"]


def test_crossings_of_folds_are_found() -> None:
    samples = [
        Sample("0", "a", fold=0, sha256="s"),
        Sample("1", "a", fold=1, sha256="s"),
        Sample("2", "a", group="g", fold=1),
    ]
    samples += [Sample("3", "a", "test", group="g"), Sample("4", "a", fold=1, sha256="s")]

    rows = [(leak.path, leak.set, leak.kind, leak.other, leak.other_set) for leak in find_crossings(samples, {})]

    assert rows == [
        ("1", "fold 1", "identical bytes", "0", "fold 0"),
        ("3", "test", "group", "2", "fold 1"),
        ("4", "fold 1", "identical bytes", "0", "fold 0"),
    ]
