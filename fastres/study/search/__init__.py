"""The paper's randomized hyperparameter search (section 5.4): what is searched, its trials, what comes of them."""
