"""Running trials on Ray: a connection, warm worker groups, and Tune between them. Never imports Optuna."""
