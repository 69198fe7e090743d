"""Arrays in, arrays out: estimators, agreement, intervals, reliability, simulation. numpy and scipy only."""
