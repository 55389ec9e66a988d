"""At run time: the controller that every visit goes through, patches, trials and supervised runs."""
