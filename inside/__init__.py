"""What open weights allow: which rows and matrices of an adapter decide, and which report. Needs torch and PEFT."""
