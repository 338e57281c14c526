"""What the tests and intervals of a comparison are, in a sentence each."""

_TEXTS = {
    "mcnemar_exact": "exact McNemar test of the images that only one model gets right",
    "mcnemar_midp": "McNemar test, mid-p",
    "newcombe_paired": "Newcombe 1998, paired proportions, method 10",
    "newcombe_unpaired": "Newcombe 1998, independent proportions, method 10",
    "clustered_newcombe_paired": "Newcombe's method, from Wilson limits and a correlation by group",
    "clustered_newcombe_unpaired": "Newcombe's method, from Wilson limits by group",
    "delong": "paired DeLong test and interval (1988), as in pROC",
    "obuchowski": "DeLong's test with Obuchowski's variance by group (1997), Student's t",
    "delong_macro": "DeLong's test of the mean AUC over classes, from each image's influence",
    "clustered_delong_macro": "the same with the influences summed by group",
    "delong_unpaired": "DeLong test of independent sets, Satterthwaite's degrees of freedom of all four samples",
    "obuchowski_unpaired": "the same with Obuchowski's variance by group",
    "delong_macro_unpaired": "the same for the mean AUC over classes",
    "image_swaps": "permutation test: the outputs of the two models are swapped for single images",
    "patient_swaps": "permutation test: the outputs of the two models are swapped for whole groups",
    "patient_shuffles": "permutation test, studentised: groups are dealt anew to the two sets",
    "image_shuffles": "permutation test, studentised: images are dealt anew to the two sets",
    "chi_squared_n_1": "chi-squared test with N - 1 (Campbell 2007)",
    "bootstrap": "expanded percentiles of resampled images, the same for both models; p where they touch 0",
    "patient_bootstrap": "expanded percentiles of resampled groups",
    "bootstrap_unpaired": "both sets resampled; p where the expanded percentiles touch 0",
    "identical": "the scores are the same, so is everything else",
}


def method_text(name: str) -> str:
    """What a method is."""
    return _TEXTS.get(name, name)
