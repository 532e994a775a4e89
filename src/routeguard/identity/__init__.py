"""Who a caller is: users, what they prove themselves by, and what stands for them afterwards. One folder a feature."""
