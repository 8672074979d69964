//! One payload's rounds, dispatch, budgets, settlement and assembly.
