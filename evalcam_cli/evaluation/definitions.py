"""What every number means, where it is defined, and which other tool gives the same one."""

from typing import NamedTuple


class Definition(NamedTuple):
    """One metric in words."""

    meaning: str
    source: str
    """Paper, and equation where there is one."""
    elsewhere: str
    """How to compute it with another tool; `y` truth, `p` probabilities, `d` predicted classes."""


_AVERAGES = {
    "macro": "mean over the classes where it is defined of",
    "weighted": "mean over the classes where it is defined, each weighing as many images as it has, of",
    "micro": "over the decisions of all classes counted together:",
}
_SOKOLOVA = "Sokolova and Lapalme, A systematic analysis of performance measures, 2009"
_ALTMAN = "Altman and Bland, Diagnostic tests 1 and 2, 1994"
_BAMBER = "Bamber 1975; Hanley and McNeil 1982"
_GUO = "Guo et al., On calibration of modern neural networks, 2017"

_SINGLE = {
    "accuracy": Definition("share of images predicted right", _SOKOLOVA, "sklearn accuracy_score(y, d)"),
    "balanced_accuracy": Definition(
        "mean recall over the classes that have images; the same number as recall_macro",
        "Brodersen et al. 2010",
        "sklearn balanced_accuracy_score(y, d)",
    ),
    "no_information_rate": Definition(
        "share of the largest class: the accuracy of always naming it", "Kuhn, caret", "max of numpy bincount(y) / n"
    ),
    "top_3_accuracy": Definition(
        "share of images whose true class is among the 3 highest scores; equal scores in class order",
        "Russakovsky et al., ImageNet, 2015",
        "sklearn top_k_accuracy_score(y, p, k=3), which breaks ties otherwise",
    ),
    "top_5_accuracy": Definition(
        "share of images whose true class is among the 5 highest scores; equal scores in class order",
        "Russakovsky et al., ImageNet, 2015",
        "sklearn top_k_accuracy_score(y, p, k=5), which breaks ties otherwise",
    ),
    "log_loss": Definition(
        "mean of -log p of the true class, in nats; lower is better",
        "Good 1952",
        "sklearn log_loss(y, p), which clips p",
    ),
    "brier": Definition(
        "mean over images of the sum over classes of (p - y)², halved for two classes; lower is better",
        "Brier 1950",
        "sklearn brier_score_loss(y, p)",
    ),
    "ece": Definition(
        "Σ (n_b/n) |accuracy_b - confidence_b| over 15 bins of equal width, closed on the right, of the probability of "
        "the most probable class; lower is better; above 0 by chance even for a perfectly calibrated model",
        f"{_GUO}, equation 3",
        "eight lines of numpy, see reproduce.py",
    ),
    "ece_equal_mass": Definition(
        "the same over 15 bins that hold equally many images", "Nixon et al. 2019, section 4", "see reproduce.py"
    ),
    "mce": Definition(
        "the largest gap of one of the 15 bins of equal width", f"{_GUO}, equation 5", "see reproduce.py"
    ),
    "ece_expected_if_calibrated": Definition(
        "mean ECE if every image were right with the probability stated, with its 2.5 % and 97.5 % quantiles; an ECE "
        "inside says nothing against the model",
        "Bröcker and Smith 2007; Vaicenavicius et al. 2019",
        "see reproduce.py",
    ),
    "calibration_slope": Definition(
        "slope b of the logistic regression of the truth on logit p of the positive class; 1 is ideal, below 1 the "
        "probabilities are too extreme",
        "Cox 1958; Van Calster et al. 2019",
        "sklearn LogisticRegression without penalty on logit p",
    ),
    "calibration_intercept": Definition(
        "intercept of that regression with the slope held at 1; 0 is ideal, below 0 the probabilities are too high",
        "Cox 1958; Van Calster et al. 2019",
        "statsmodels GLM with offset logit p",
    ),
    "mcc": Definition(
        "Matthews' correlation of truth and prediction for K classes (R_K), from -1 to 1",
        "Gorodkin 2004",
        "sklearn matthews_corrcoef(y, d), which is 0 where undefined",
    ),
    "cohen_kappa": Definition(
        "agreement of truth and prediction beyond chance, at most 1",
        "Cohen 1960, equation 1",
        "sklearn cohen_kappa_score",
    ),
    "roc_auc_ovo_macro": Definition(
        "mean over ordered pairs of classes of the AUC between their images; does not depend on the class shares",
        "Hand and Till 2001, equation 7",
        "sklearn roc_auc_score(y, p, multi_class='ovo')",
    ),
}
_OF_CLASS = {
    "precision": Definition("tp / (tp + fp), also called PPV", _ALTMAN, "sklearn precision_score"),
    "recall": Definition("tp / (tp + fn), also called sensitivity", _ALTMAN, "sklearn recall_score"),
    "specificity": Definition("tn / (tn + fp)", _ALTMAN, "sklearn multilabel_confusion_matrix"),
    "npv": Definition("tn / (tn + fn), the negative predictive value", _ALTMAN, "sklearn multilabel_confusion_matrix"),
    "f1": Definition("2 tp / (2 tp + fp + fn)", "van Rijsbergen 1979; Opitz and Burst 2019", "sklearn f1_score"),
    "lr_positive": Definition(
        "recall / (1 - specificity), the positive likelihood ratio",
        "Simel et al. 1991",
        "sklearn class_likelihood_ratios",
    ),
    "lr_negative": Definition(
        "(1 - recall) / specificity, the negative likelihood ratio; lower is better",
        "Simel et al. 1991",
        "sklearn class_likelihood_ratios",
    ),
    "roc_auc": Definition(
        "probability that an image of the class scores higher than another one; a tie counts one half",
        _BAMBER,
        "sklearn roc_auc_score",
    ),
    "partial_roc_auc": Definition(
        "area under the ROC curve up to a false positive rate of 0.1, standardised: 0.5 is chance, 1 the best",
        "McClish 1989",
        "sklearn roc_auc_score(max_fpr=0.1); pROC auc(partial.auc=c(1, .9), partial.auc.correct=TRUE)",
    ),
    "average_precision": Definition(
        "Σ (R_i - R_(i-1)) P_i over the distinct scores of the class, without interpolation; guessing gives the share "
        "of the class",
        "Davis and Goadrich 2006; Boyd et al. 2013",
        "sklearn average_precision_score",
    ),
}


def define(name: str) -> Definition:
    """The definition of any name in `metrics.json`.

    Raises:
        KeyError: There is no such metric.
    """
    if name in _SINGLE:
        return _SINGLE[name]
    if name in _OF_CLASS:
        return _OF_CLASS[name]
    if name.endswith("_pooled_oof"):
        base = define(
            name.removesuffix("_pooled_oof").replace("partial_auc", "partial_roc_auc").replace("auc_o", "roc_auc_o")
            if name != "auc_pooled_oof"
            else "roc_auc"
        )
        return base._replace(meaning=f"of all out-of-fold predictions together, not a mean over folds: {base.meaning}")
    if name.endswith("@op"):
        base = _SINGLE["accuracy"] if name == "accuracy@op" else _OF_CLASS[name.removesuffix("@op")]
        return base._replace(meaning=f"at the operating point, its class against the rest: {base.meaning}")
    stem, _, average = name.rpartition("_")
    base = _OF_CLASS[stem.removesuffix("_ovr")]
    what = f"{_AVERAGES[average]} {base.meaning}{' (each class against the rest)' if '_ovr' in stem else ''}"
    return base._replace(meaning=what, elsewhere=f"{base.elsewhere}, average {average!r}")
