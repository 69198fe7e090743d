# The authors' model of each context's choices, fitted by brms.
#
#   Rscript scripts/brms_reference/fit.R TRIALS.csv POSTERIORS.csv RUN.json [slopes]
#
# TRIALS.csv as simulate.py writes it. POSTERIORS.csv gets a row a parameter: x1, x2, ..., `Intercept` (at the mean of
# the predictors, which is the one that has the prior) and `b_Intercept` (at x = 0), or the slopes only. RUN.json gets
# versions, settings and seconds. Debian packages and a link that rstan needs: see README.md here.

suppressPackageStartupMessages(library(brms))

SEED <- 20250517
REFERENCE <- list(iter = 12000, warmup = 2000) # 40,000 draws: Monte Carlo error of a slope's mean about 0.004
TIMED <- list(iter = 2000, warmup = 1000) # what brm() does by default
CHAINS <- 4

predictors <- function(table) {
  columns <- grep("^x[0-9]+$", names(table), value = TRUE)
  columns[!is.na(unlist(table[1, columns]))]
}

model_of <- function(columns) reformulate(columns, response = "choice")

# One chain after the other in this process (brm's default), so that seconds are those of one core.
fit_context <- function(compiled, table, iterations) {
  suppressWarnings(update(
    compiled, formula. = model_of(predictors(table)), newdata = table, recompile = FALSE, chains = CHAINS,
    iter = iterations$iter, warmup = iterations$warmup, seed = SEED, cores = 1, refresh = 0
  ))
}

timed <- function(compiled, table) {
  clock <- system.time(fit <- suppressMessages(fit_context(compiled, table, TIMED)))
  seconds <- c(
    stan = sum(rstan::get_elapsed_time(fit$fit)), # warm-up and sampling of all chains, as Stan reports them
    processor = clock[["user.self"]] + clock[["sys.self"]], wall = clock[["elapsed"]]
  )
  data.frame(
    context = table$context[1], trials = nrow(table), attributes = length(predictors(table)), t(round(seconds, 3))
  )
}

# A row a parameter, from draws of shape (iterations, chains).
summarise <- function(context, parameter, draws) {
  hdi <- coda::HPDinterval(coda::as.mcmc(as.vector(draws)), prob = 0.95)
  interval <- quantile(draws, c(0.025, 0.975), names = FALSE)
  numbers <- c(
    mean = mean(draws), sd = sd(draws), q2.5 = interval[1], q97.5 = interval[2], hdi_low = hdi[1], hdi_high = hdi[2],
    rhat = posterior::rhat(draws), ess_bulk = posterior::ess_bulk(draws), mcse = posterior::mcse_mean(draws)
  )
  data.frame(context = context, parameter = parameter, t(signif(numbers, 6)))
}

posterior_of <- function(fit, table, slopes_only) {
  columns <- predictors(table)
  draws <- posterior::as_draws_array(fit)
  named <- lapply(setNames(columns, columns), function(x) draws[, , paste0("b_", x), drop = TRUE])
  if (!slopes_only) {
    at_zero <- draws[, , "b_Intercept", drop = TRUE]
    means <- colMeans(table[columns])
    named$Intercept <- Reduce(`+`, Map(`*`, named, means), at_zero)
    named$b_Intercept <- at_zero
  }
  rows <- Map(function(name, values) summarise(table$context[1], name, unclass(values)), names(named), named)
  do.call(rbind, rows)
}

main <- function(trials_file, posteriors_file, run_file, what = "all") {
  stopifnot(what %in% c("all", "slopes"))
  trials <- read.csv(trials_file)
  contexts <- split(trials, factor(trials$context, unique(trials$context)))
  first <- contexts[[1]]
  compiling <- system.time(compiled <- suppressMessages(brm(
    model_of(predictors(first)), data = first, family = bernoulli(), prior = prior(normal(0, 1), class = b), chains = 0
  )))
  rows <- list()
  seconds <- list()
  divergences <- 0
  for (table in contexts) {
    fit <- suppressMessages(fit_context(compiled, table, REFERENCE))
    # brms recodes the outcome itself; one that takes a single value must still mean what it says.
    stopifnot(all(standata(fit)$Y == table$choice))
    divergences <- divergences + sum(nuts_params(fit, pars = "divergent__")$Value)
    rows[[length(rows) + 1]] <- posterior_of(fit, table, what == "slopes")
    seconds[[length(seconds) + 1]] <- timed(compiled, table)
    cat(sprintf("%d/%d %s\n", length(rows), length(contexts), table$context[1]))
  }
  write.csv(do.call(rbind, rows), posteriors_file, row.names = FALSE, quote = FALSE)
  processor <- sub(".*: *", "", grep("model name", readLines("/proc/cpuinfo"), value = TRUE)[1])
  run <- list(
    measured = format(Sys.Date()),
    machine = sprintf("%d-core %s machine (%s)", parallel::detectCores(), Sys.info()[["machine"]], processor),
    versions = list(
      R = as.character(getRversion()), brms = as.character(packageVersion("brms")),
      rstan = as.character(packageVersion("rstan"))
    ),
    model = "brm(choice ~ x1 + ..., family = bernoulli(), prior = prior(normal(0, 1), class = b))",
    seed = SEED, chains = CHAINS, reference = REFERENCE, timed = TIMED, divergent_transitions = divergences,
    compile_seconds = list(processor = compiling[["user.self"]] + compiling[["user.child"]] +
      compiling[["sys.self"]] + compiling[["sys.child"]], wall = compiling[["elapsed"]]),
    fits = do.call(rbind, seconds)
  )
  jsonlite::write_json(run, run_file, auto_unbox = TRUE, dataframe = "columns", pretty = 1, digits = 6)
}

do.call(main, as.list(commandArgs(trailingOnly = TRUE)))
